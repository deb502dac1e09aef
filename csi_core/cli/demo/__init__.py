"""``csi-core demo``: the real server on a socket, and a client in the place of Kubernetes.

``command`` is the click command; ``place`` makes the directories and the filesystem for the pool and proves
that nothing of them stays behind; ``server`` runs ``csi-core serve`` beside it; ``client`` makes the gRPC
calls and times them; ``cluster`` does what Kubernetes does around them; ``content`` is what pods write;
``walk`` is the life of a volume; ``samples`` watches the pool and ``report`` shows it all.
"""
