"""What the server does, with no HTTP and no wire shapes."""
