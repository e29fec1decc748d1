"""Reference outputs of NeMo and transformers, stored for the test suite.

The package and its tests do not import this; the tests read the files that these scripts wrote.
"""
