"""Auto-Encoding Variational Bayes (Kingma & Welling 2013, arXiv:1312.6114), small and exact.

Read in this order: `model` (encoder and decoder), `likelihoods` (log p(x|z)), `bounds` (KL, ELBO,
importance-weighted bound), `training` (the loop), `evaluation` (numbers on the test set).
Around them: `params` (every parameter, typed), `reference` (what is written from them), `cli`
(flags, logs, errors), `files` (what is written and how), `data` (images and their binarisation),
`sources` (where the images come from), `checkpoints`, `figures`, `tables`.
"""
