"""rapidin: which training samples made my language model say this?"""
