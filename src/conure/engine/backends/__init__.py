"""Backends that run a network: one package for each (torch_eager, cuda, cpu), and the registry that selects one."""
