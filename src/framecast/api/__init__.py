"""The public verbs: each is a function of this name in ``framecast``, too."""
