"""``csi-core demo``: the real server on a socket, and a client in the place of Kubernetes.

``command`` is the click command; ``setting`` what is walked; ``place`` makes the directories and the
filesystem for the pool and proves that nothing of them stays behind; ``client`` makes the gRPC calls
and times them; ``cluster`` does what Kubernetes does around them; ``content`` is what pods write;
``walk`` is the life of a volume; ``samples`` watches the pool and ``report`` shows it all.
"""
