"""HTTP/1.1 as pure functions of bytes: read a head, decide how a body is framed, walk chunks,
write a head for the next hop.

Belongs here: RFC 9110 and 9112, strictly. Of two possible readings of a message neither is taken:
`BadMessage` says why. Does not belong here: connections, time, policy, and what a service is.
"""
