"""Auto-Encoding Variational Bayes (Kingma & Welling 2013, arXiv:1312.6114).

Read in this order: `model` (encoder and decoder), `likelihoods` (log p(x|z)), `bounds` (KL, ELBO,
importance-weighted bound), `training` (the training loop), `evaluation` (numbers on the test set).
They use `data` (images and binarisation), `rng` (random numbers) and `files` (reading and writing).

`research` contains the stages on request, `report` the tables, figures and discussion. `plumbing`
has no effect on results: parameters, command line, checkpoints, machine.
"""
