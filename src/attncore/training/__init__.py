"""Train a language model: a program, in files to read and to copy. Needs torch.

``python -m attncore.training`` trains a decoder of 24 million parameters on the Python code that is
installed with attncore, on one CUDA card, in bfloat16 and compiled, and writes gpu.npz, which
:func:`attncore.nn.load` reads. It needs tokenizers and tqdm, attncore's extra `training`. The same
command under ``torchrun --standalone --nproc-per-node 8 -m attncore.training`` shares each batch
among eight cards. With ``--checkpoint run.pt`` all that the run depends on is stored now and then,
and the same command goes on from there after it was stopped, on as many cards as you like.
``--help`` lists the options.

===============  ===============================================================
`recipes`        what to train, and how: sizes, steps, rates
`texts`          what to learn from, and what is held out to judge by
`model`          a new model for some texts, and the file of a trained one
`scores`         the loss, and bits per character of a text
`loop`           the training itself
`checkpoints`    stopping and going on
`ranks`          one process for each card
`curve`          what the book shows of a training
===============  ===============================================================
"""
