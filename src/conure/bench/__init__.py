"""How many live streams a server holds: clients that speak at a person's pace, and what is measured with them."""
