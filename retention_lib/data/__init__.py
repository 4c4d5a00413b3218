"""What the known data sets look like, and how each is read or drawn."""
