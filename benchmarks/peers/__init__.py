"""One module for each way of training the model, with a class `Trainer(workload, precision, **options)`.

    trainer.description       what it runs on: {"device": …, "versions": {…}}
    trainer.train(steps)      takes that many steps of truncated backpropagation; returns the loss of a step, or its mean over
                              steps, read when all of them are done
    trainer.gpu_peak_bytes()  the most GPU memory that its tensors have taken; None without a GPU

All train the model of Zaremba et al. (2014) with SGD, the gradient clipped by its global norm, on the loss summed over time and
averaged over the batch, and carry the recurrent state from one window to the next.
"""
