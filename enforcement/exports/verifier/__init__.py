"""The verifier of exports: Python's own library and ``cryptography``, and nothing of Valdrix.

``deploy/auditors/verify_export.py`` is these modules as one file, for whoever is to verify without
installing anything else.
"""
