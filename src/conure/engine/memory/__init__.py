"""The memory that models need on their device, and its division among them."""
