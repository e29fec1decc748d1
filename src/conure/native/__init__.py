"""Kernels in C++, for what no library does fast enough; everything that uses them goes without them, slower."""
