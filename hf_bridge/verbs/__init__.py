"""The bridge's verbs: ``import``, ``export``, ``family``."""
