"""Accepts workers: the port, the acceptor in front of it, the certificate."""
