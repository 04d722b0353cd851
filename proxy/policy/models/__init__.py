"""The YAML's sections as pydantic models: what may stand where, its defaults and its words.

The models check one value at a time; what concerns several values or files is in `policy.checks`.
Attribute docstrings are what an editor shows, and what "is missing" says of a key.
"""
