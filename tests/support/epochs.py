"""The steps of an epoch alone."""


def run_steps(trainer):
    """Every step of the trainer's next epoch, and nothing that is measured after them."""
    trainer.begin_epoch()
    for gather in trainer.windows():
        trainer.step.engine.executor.run(trainer.step, gather, trainer.counter)
