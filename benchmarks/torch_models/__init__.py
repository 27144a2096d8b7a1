"""The models of headloom's recipes as one writes them with torch.nn alone: what ``training.py`` compares
headloom's trainer with.

Parameters have the names of headloom's, so that both sides start from the same weights. What people
write as one projection (queries, keys and values of the same tokens) is one here; ``loading.py`` says
how the weights come apart. Where there is more than one usual way to write a mechanism, there is a
*form* for each, and the comparison takes the fastest.
"""
