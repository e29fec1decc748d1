"""How the numbers are computed: one package for each way to run a network, and the registry that chooses."""
