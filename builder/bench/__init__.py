"""How long things take on this machine, and how long the same takes elsewhere.

A benchmark tells, and does not judge: what is slow on a busy machine says nothing of the code, so
the load stands beside the numbers and nothing fails.
"""
