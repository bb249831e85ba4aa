"""The process runtime: replicas are local processes, held by a keeper process."""
