"""What trackers get of a training: one module a tracker, all driven by the run's own events.

    session.py   events -> numbers, and what is told of the run
    feed.py      a thread a tracker, so that none can hold up the training or end it
    wandb.py mlflow.py comet.py tensorboard.py trackio.py

A tracker's package is imported by its module's `start`, so only where it was asked for.
"""
