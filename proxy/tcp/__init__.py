"""TCP connections that pass through the mesh as they are, for services with protocol `tcp`.

`proxy.worker` hands accepted connections over (`handover`). A session picks an endpoint by the
same policies as a request, connects, and passes bytes in both directions until both have ended.
"""
