"""One module per way of training the model, with a class `Trainer(workload, precision, **options)`.

    trainer.description       device and versions: {"device": …, "versions": {…}}
    trainer.train(steps)      trains that many steps of truncated backpropagation and waits for them; returns the loss of the
                              last step, or the mean loss of several steps
    trainer.gpu_peak_bytes()  peak GPU memory of its tensors; None without a GPU

All train the model of Zaremba et al. (2014) with SGD. The loss is summed over time and averaged over the batch, the gradient is
clipped by its global norm, and the recurrent state is carried from window to window.
"""
