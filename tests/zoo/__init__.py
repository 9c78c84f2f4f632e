"""The bug zoo, and mutation of the blocks: does a test see what is put wrong on purpose?"""
