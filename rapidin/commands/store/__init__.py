"""The commands that look after a store; none of them needs a model."""
