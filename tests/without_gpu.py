"""Imported first by the server that processes are forked from: CUDA, once it has been started, does not survive a fork."""

import os

os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
