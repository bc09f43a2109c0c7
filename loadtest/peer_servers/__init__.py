"""The servers that `make peers` compares with Rehue. They run in `.venv-peers`."""
