"""The root process of the proxy: holds the listening sockets, keeps its processes running."""
