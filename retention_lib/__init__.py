"""Which training samples does a fine-tuned classifier forget, and is that real?"""

__version__ = "0.1.0"
