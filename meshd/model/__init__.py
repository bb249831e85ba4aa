"""Frozen values that several packages of meshd share. Pure.

They import `meshd.spec` and `proxy.wire` alone, and all other packages may import them.
"""
