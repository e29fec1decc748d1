"""Server processes in front of one engine, and the parent process that starts and supervises them."""
