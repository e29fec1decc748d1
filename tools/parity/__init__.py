"""Reference numbers from NeMo and transformers, made once and stored for the ordinary test-suite.

Nothing here is imported by the package or by the tests: the tests read the files that these scripts wrote.
"""
