"""The training loop.

One trial: a model with its initial values, a data set, the training section of a recipe. Images stay on
the device as bytes and are augmented and decoded there; nothing is read back before an epoch ends; order,
augmentation and dropout are keyed by counters. So a step costs what its model costs, a killed trial
continues bit for bit on a CPU, and two arms of one seed see the same images in the same order.

Read `Trainer` from top to bottom: set up, resume, run, one epoch, one step, metrics, checkpoint.
"""

import math
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from mimetic import streams
from mimetic.errors import RunError
from mimetic.files import remove_temporary_files
from mimetic.journal import JournalError
from mimetic.train.batches import BatchLoader
from mimetic.train.checkpoint import (
    CHECKPOINT,
    WEIGHTS,
    Progress,
    find_checkpoint,
    save_checkpoint,
    save_weights,
)
from mimetic.train.compiling import CompiledModel, CompileError, pick_compile
from mimetic.train.devices import (
    autocast,
    pick_device,
    pick_precision,
    preserve_global_rng,
    seed_layers,
    set_arithmetic,
)
from mimetic.train.distributed import SINGLE_PROCESS, DistContext
from mimetic.train.freeze import check_frozen, freeze_norm_statistics
from mimetic.train.job import PROGRESS_SECONDS, Outcome, Stop, Stopped, TrainJob, never, stop_if
from mimetic.train.metrics import Evaluator, all_finite, require_finite
from mimetic.train.objective import loss_and_metrics
from mimetic.train.optimizers import exempt_from_decay, make_optimizer, set_learning_rate
from mimetic.train.profiling import Profiler, profiling
from mimetic.train.schedules import continues, make_schedule

_ONE_VALUE = "Expected more than 1 value per channel"
"""torch's message if a batch is too small for batch norm."""


@preserve_global_rng()
def train(job: TrainJob, *, stop: Stop = never, context: DistContext = SINGLE_PROCESS) -> Outcome:
    """Train a model in place, and write its journal, checkpoints and final weights.

    The journal gets the start, each epoch (0 is the evaluation before training), progress at most once a
    second, checkpoints and the weights; the caller writes its end. The state is saved every few epochs,
    every few minutes within an epoch, and when the trial is stopped; it is removed once the trial has
    finished and its weights are saved.

    `stop` is called before each step; a string stops the trial (status KILLED). The processes of a context
    train the model together; each calls this with the same job.

    Returns:
        The outcome. A loss that is not finite, a frozen parameter that changed, a full disk and lack of
        device memory are FAILED with a reason, not exceptions.

    Raises:
        UserError: If the device is missing or the checkpoint belongs to another plan.
    """
    trainer = Trainer(job, stop, context)
    trainer.resume()
    several = context.world_size > 1
    try:
        trainer.run()
    except Stopped as stopped:
        return Outcome("KILLED", f"{stopped}{trainer.save_on_interrupt()}")
    except torch.OutOfMemoryError:
        if several:
            raise  # the other ranks wait for this one: only the end of the process frees them
        reason = f"out of memory on {trainer.device}: try a smaller `train.batch_size` or `study.slots`"
        return Outcome("FAILED", reason)
    except ValueError as error:
        if several or _ONE_VALUE not in str(error):
            raise
        reason = (
            "batch norm has no statistics of a single value per channel: set `train.batch_size` to 2 or more"
        )
        return Outcome("FAILED", reason)
    except RunError as error:
        if several and isinstance(error, JournalError | CompileError):
            raise  # failed on one rank only, as above
        return Outcome("FAILED", str(error))
    return Outcome("FINISHED")


class Trainer:
    """One training job in progress.

    Attributes:
        device: Where it trains.
        progress: Epochs and steps so far, and the sums of the current epoch.
    """

    def __init__(self, job: TrainJob, stop: Stop, context: DistContext) -> None:
        spec = job.spec
        self.job, self.stop, self.context = job, stop, context

        # device and arithmetic
        self.device = pick_device(spec.device)
        self.precision = pick_precision(spec.precision, self.device)
        set_arithmetic(self.precision, self.device)

        # data, on the device as bytes
        self.loader = BatchLoader(job.dataset, spec, device=self.device, augment=job.augment)
        context.validate(self.loader.batch_size, self.device)
        self.evaluator = Evaluator(
            decode=self.loader.decode,
            batch_size=spec.eval_batch_size,
            precision=self.precision,
            stop=stop,
            context=context,
        )

        # model
        self.model = job.model.to(self.device)
        if spec.channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.forward: Callable[[Tensor], Tensor] = context.wrap_ddp(self.model)
        self.pending_compile: CompiledModel | None = None  # until the first step has compiled it
        compiles, self.compile_reason = pick_compile(spec.compile, self.device, steps=self.loader.steps)
        if compiles:
            required = spec.compile is True or context.world_size > 1  # ranks must not differ
            self.pending_compile = CompiledModel(self.forward, required=required, journal=job.journal)
            self.forward = self.pending_compile

        # optimizer and schedule
        self.optimizer = make_optimizer(spec.optimizer, self.model)
        self.trainable = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.base_lr: float = self.optimizer.param_groups[0]["lr"]
        self.schedule = make_schedule(spec.schedule, steps=self.loader.steps)

        # progress
        sums = {name: torch.zeros((), device=self.device) for name in ("loss", "correct")}
        self.progress = Progress(sums=sums)
        minutes = spec.checkpoint.minutes
        self.checkpoint_interval_s = math.inf if minutes is None else 60 * minutes
        self.last_saved_step, self.last_save_time = 0, time.perf_counter()
        self.resumed = False
        self.profiler: Profiler | None = None

    def resume(self) -> None:
        """Continue from the checkpoint, if there is one; journal the start.

        Raises:
            UserError: If the checkpoint belongs to another plan.
        """
        job, progress = self.job, self.progress
        job.folder.mkdir(parents=True, exist_ok=True)
        with self.context.rank0_first() as is_rank0:
            if is_rank0:
                remove_temporary_files(job.folder)
        checkpoint, note = find_checkpoint(job.folder, plan_hash=job.plan_hash, epochs=job.spec.epochs)

        # the state of the checkpoint
        if checkpoint is not None:
            checkpoint.restore(self.model, self.optimizer)
            saved = checkpoint.progress
            progress.epoch, progress.step, progress.elapsed_s = saved.epoch, saved.step, saved.elapsed_s
            for name, value in saved.sums.items():
                progress.sums[name] = self.context.rank0_only(value.to(self.device))
            self.last_saved_step, self.resumed = progress.step, True

        job.journal.write(
            "start",
            **{"seed": job.seed, "plan": job.plan_hash, **job.metadata},
            device=str(self.device),
            threads=torch.get_num_threads(),
            precision=self.precision,
            torch=torch.__version__,
            resumed_from_epoch=progress.epoch if self.resumed else None,
            resumed_from_step=progress.step if self.resumed else None,
            compile=self.compile_reason,
            ranks=self.context.world_size,
            no_decay=", ".join(exempt_from_decay(self.model)) or None,
            note=note,
        )

    def run(self) -> None:
        """Train all remaining epochs, check frozen parameters, and save the weights.

        Raises:
            Stopped: If `stop` returned a reason.
            RunError: If training diverged, a frozen parameter changed, or a file cannot be written.
        """
        job, progress, spec = self.job, self.progress, self.job.spec

        # before training
        if not self.resumed:
            metrics = self._evaluate()
            if job.metrics_hook is not None:
                metrics |= job.metrics_hook(self.model, 0)
            job.journal.write("epoch", epoch=0, step=0, metrics=metrics)

        # epochs
        record = job.profile and self.context.rank == 0
        with profiling(job.folder, self.device, steps=self.loader.steps, enabled=record) as self.profiler:
            for epoch in range(progress.epoch + 1, spec.epochs + 1):
                order_N = self.loader.epoch_order(seed=job.seed, epoch=epoch)
                sums = self._train_epoch(epoch, order_N)
                metrics = self._epoch_metrics(
                    epoch, sums, num_targets=self.loader.examples.num_targets(order_N)
                )
                job.journal.write("epoch", epoch=epoch, step=progress.step, metrics=metrics)
                require_finite(metrics, epoch=epoch)
                progress.epoch, progress.elapsed_s = epoch, 0.0
                for value in progress.sums.values():
                    value.zero_()
                if epoch % spec.checkpoint.every == 0 or epoch == spec.epochs:
                    self.save_state()

        # after training
        check_frozen(self.model, job.frozen)
        if spec.checkpoint.keep_weights:
            self._save_weights()

    def _train_epoch(self, epoch: int, order_N: Tensor) -> dict[str, float]:
        """Run the remaining steps of an epoch, save the state when it is due, and return the sums."""
        progress, context = self.progress, self.context
        self.model.train()
        freeze_norm_statistics(self.model, self.job.frozen_norm_layers)
        last_log_time = time.perf_counter()
        started = last_log_time - progress.elapsed_s  # as if a resumed epoch had not been interrupted

        while progress.step < epoch * self.loader.steps_per_epoch:
            # stop, or save the state, on all ranks at the same step
            now = time.perf_counter()
            progress.elapsed_s = now - started
            unsaved = progress.step > self.last_saved_step
            checkpoint_due = unsaved and now - self.last_save_time >= self.checkpoint_interval_s
            stop_reason, checkpoint_due = context.any_rank(self.stop(), checkpoint_due=checkpoint_due)
            stop_if(stop_reason)
            if checkpoint_due:
                self.save_state()

            self._train_step(order_N)

            # log by the clock, without waiting for the device
            now = time.perf_counter()
            if self.pending_compile is not None:
                self.pending_compile.report_first_step(now - started)
                self.pending_compile = None
            if now - last_log_time >= PROGRESS_SECONDS:
                self._log_progress(epoch, elapsed_s=now - started)
                last_log_time = now
            if self.profiler is not None:
                self.profiler.step()

        # reading the sums waits for the device, which belongs to the time of the steps
        sums = {name: context.all_reduce_sum(value).item() for name, value in progress.sums.items()}
        progress.elapsed_s = time.perf_counter() - started
        return sums

    def _log_progress(self, epoch: int, *, elapsed_s: float) -> None:
        """Journal the pace of the current epoch."""
        step, loader = self.progress.step, self.loader
        images = (step - (epoch - 1) * loader.steps_per_epoch) * loader.batch_size
        pace = images / elapsed_s
        self.job.journal.write("progress", epoch=epoch, step=step, steps=loader.steps, images_per_second=pace)

    def _train_step(self, order_N: Tensor) -> None:
        """Run one step, and add its loss and correct predictions to the epoch's sums."""
        spec, progress, context, seed = self.job.spec, self.progress, self.context, self.job.seed

        # batch: this rank's shard
        batch = self.loader.batch(order_N, progress.step, seed=seed)
        inputs, targets, labels = map(context.shard, batch)

        # forward
        seed_layers(streams.key(seed, "step", progress.step, *context.rng_key), self.device)
        with autocast(self.precision, self.device):
            logits = self.forward(inputs)
        loss, num_correct = loss_and_metrics(logits, targets, labels, label_smoothing=spec.label_smoothing)

        # backward
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if spec.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.trainable, spec.clip_norm)

        # update
        set_learning_rate(self.optimizer, self.base_lr * self.schedule(progress.step))
        self.optimizer.step()
        progress.step += 1

        # sums stay on the device and are read once per epoch
        progress.sums["loss"] += loss.detach()
        progress.sums["correct"] += num_correct

    def _epoch_metrics(self, epoch: int, sums: Mapping[str, float], *, num_targets: int) -> dict[str, float]:
        """Return the metrics of an epoch; a diverged model is neither evaluated nor measured."""
        spec, loader, elapsed_s = self.job.spec, self.loader, self.progress.elapsed_s
        started = time.perf_counter()
        metrics = {
            "train/loss": sums["loss"] / (loader.steps_per_epoch * self.context.world_size),
            "train/acc": sums["correct"] / num_targets,
            "lr": self.base_lr * self.schedule(self.progress.step - 1),
            "images_per_second": loader.steps_per_epoch * loader.batch_size / elapsed_s,
        }
        evaluation_due = epoch % spec.eval_every == 0 or epoch == spec.epochs
        if evaluation_due and math.isfinite(metrics["train/loss"]):
            metrics |= self._evaluate()
        metrics["epoch_seconds"] = elapsed_s + time.perf_counter() - started
        if self.job.metrics_hook is not None and all_finite(metrics):
            metrics |= self.job.metrics_hook(self.model, epoch)
        return metrics

    def _evaluate(self) -> dict[str, float]:
        """Return loss and accuracy on every held-out split."""
        return self.evaluator.evaluate_splits(self.model, self.loader.held_out)

    def save_state(self) -> None:
        """Write the checkpoint, on rank 0."""
        job, progress = self.job, self.progress
        sums = {name: self.context.all_reduce_sum(value) for name, value in progress.sums.items()}
        state = Progress(progress.epoch, progress.step, progress.elapsed_s, sums)
        with self.context.rank0_first() as is_rank0:
            if is_rank0:
                path = job.folder / CHECKPOINT
                save_checkpoint(path, self.model, self.optimizer, state, plan_hash=job.plan_hash)
                job.journal.write("checkpoint", epoch=progress.epoch, step=progress.step)
        self.last_saved_step, self.last_save_time = progress.step, time.perf_counter()

    def save_on_interrupt(self) -> str:
        """Save the state of a stopped trial, if it is newer than the checkpoint; return what went wrong."""
        if self.progress.step == self.last_saved_step:
            return ""
        try:
            self.save_state()
        except RunError as error:
            return f"; {error}"
        return ""

    def _save_weights(self) -> None:
        """Write the final weights, on rank 0, and remove the checkpoint unless more epochs could follow."""
        job, steps = self.job, self.loader.steps
        with self.context.rank0_first() as is_rank0:
            if is_rank0:
                path, epochs = job.folder / WEIGHTS, job.spec.epochs
                save_weights(path, self.model, epoch=epochs, step=steps, plan_hash=job.plan_hash)
                job.journal.write("artifact", file=WEIGHTS, kind="weights")
                if not continues(job.spec.schedule, steps=steps, longer=2 * steps):
                    (job.folder / CHECKPOINT).unlink(missing_ok=True)
