"""Planning: what a fit says about models not yet trained."""
