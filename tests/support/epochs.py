"""The steps of one epoch, without its measurements."""


def run_steps(trainer):
    """Run the steps of the trainer's next epoch, without the measurements after them."""
    trainer.begin_epoch()
    for gather in trainer.windows():
        trainer.step.engine.executor.run(trainer.step, gather, trainer.counter)
