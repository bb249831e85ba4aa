"""Certificates from a certificate authority (ACME, RFC 8555): which, when, and how.

Run by the control process of a mesh and by the helper of `meshd proxy`.

- `values`: frozen values: what is wanted, held, and was tried
- `wanted`: the settings and the routes to what is wanted
- `decide`: pure: when to order, retry and warn
- `store`: the files of accounts, certificates and attempts
- `keys`: keys, certificate requests, and what certificates say
- `authority`: one certificate authority; blocks, so it runs in a thread
- `threads`: a bounded number of threads for its calls
- `manager`: the loop that orders what is due, and hands certificates to the proxy
- `files`: certificates in files of the user, for display

Does not belong here: TLS itself, which the proxy's workers speak.
"""
