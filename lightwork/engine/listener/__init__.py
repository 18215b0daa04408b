"""Where workers dial in: the port, the acceptor in front of it, the certificate."""
