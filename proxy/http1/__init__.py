"""HTTP/1.1 as pure functions of bytes: parse a head, frame a body, decode chunks, build a head.

Used by `proxy.request` and `proxy.state`. Belongs here: RFC 9110 and RFC 9112, strictly. A
message with two possible readings gets neither: `BadMessage` carries the reason. Does not
belong here: connections, time, policy, and the notion of a service.
"""
