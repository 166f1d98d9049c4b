//! The background thread: what blocks on the disk while nobody waits for it, off the shards' loops.
//!
//! One thread of low priority for the whole broker. Short work (checkpoints, files and folders that
//! go) is done as it comes, long work (compaction) in steps between it, one at a time. The thread
//! uses the blocking half of an [`Io`] of its own, so it runs in a simulated world as well.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use millrace_io::{Instant, Io};

use crate::mailbox::Mailbox;
use crate::shard::{Message, Shard, Task};

/// What the thread is asked to do. The shard that asked runs the tasks that come of it.
pub(crate) enum Work<I: Io> {
    /// Done at once.
    Short(ShortWork<I>),
    /// Called again and again.
    Long(LongWork<I>),
}

pub(crate) type ShortWork<I> = Box<dyn FnOnce(&mut I) -> Option<Task<I>> + Send>;
pub(crate) type LongWork<I> = Box<dyn FnMut(&mut I) -> Step<I> + Send>;

/// What a step of long work comes to.
pub(crate) enum Step<I: Io> {
    /// There is more to do, and this for the shard.
    More(Task<I>),
    /// There is more to do, after so many milliseconds.
    Later(u64),
    /// That was the last.
    Done(Task<I>),
}

/// The thread's state. Invariant: it is the last peer of the mailboxes.
pub(crate) struct Background<I: Io> {
    io: I,
    /// Set once the shards have ended.
    stop: Arc<AtomicBool>,
    mailbox: Mailbox<Message<I>>,
    /// Long work and who asked for it, the oldest first.
    long: VecDeque<(usize, LongWork<I>)>,
    /// Before this, the next step of long work would be too soon.
    resume_at: Instant,
    /// A shard's queue was full.
    is_undelivered: bool,
}

impl<I: Io> Background<I> {
    pub(crate) fn new(io: I, stop: Arc<AtomicBool>, mailbox: Mailbox<Message<I>>) -> Self {
        let resume_at = io.now();
        Self { io, stop, mailbox, long: VecDeque::new(), resume_at, is_undelivered: false }
    }

    /// Runs until the shards have ended and their short work is done. Long work is left as it is.
    pub(crate) fn run(mut self) -> io::Result<()> {
        loop {
            let is_last = self.stop.load(Ordering::Acquire);
            if is_last {
                self.long.clear();
            }
            self.turn(is_last)?;
            if is_last {
                return Ok(());
            }
        }
    }

    /// Does what has come and one step of long work; sleeps while there is neither.
    pub(crate) fn turn(&mut self, is_last: bool) -> io::Result<()> {
        let now = self.io.now();
        let soon = [
            is_last.then_some(now),
            self.is_undelivered.then(|| now.plus_ms(1)),
            (!self.long.is_empty()).then_some(self.resume_at),
        ];
        self.io.wait(soon.into_iter().flatten().min())?;
        while self.io.next_event().is_some() {}
        while let Some(message) = self.mailbox.next() {
            let Message::Work(from, work) = message else {
                unreachable!("shards send the background thread nothing but work");
            };
            match work {
                Work::Short(work) => {
                    let task = work(&mut self.io);
                    self.tell(from, task);
                }
                Work::Long(work) => self.long.push_back((from, work)),
            }
        }
        let now = self.io.now();
        if now >= self.resume_at
            && let Some((from, work)) = self.long.front_mut()
        {
            let from = *from;
            match work(&mut self.io) {
                Step::More(task) => self.tell(from, Some(task)),
                Step::Later(ms) => self.resume_at = now.plus_ms(ms),
                Step::Done(task) => {
                    self.long.pop_front();
                    self.tell(from, Some(task));
                }
            }
        }
        self.is_undelivered = self.mailbox.deliver();
        Ok(())
    }

    fn tell(&mut self, shard: usize, task: Option<Task<I>>) {
        if let Some(task) = task {
            self.mailbox.post(shard, Message::Run(task));
        }
    }
}

impl<I: Io> Shard<I> {
    /// Has short work done by the background thread; this shard runs the task that it returns.
    pub(crate) fn in_background(
        &mut self,
        work: impl FnOnce(&mut I) -> Option<Task<I>> + Send + 'static,
    ) {
        self.hand_over(Work::Short(Box::new(work)));
    }

    /// Gives work to the background thread.
    pub(crate) fn hand_over(&mut self, work: Work<I>) {
        self.mailbox.post_to_background(Message::Work(self.id, work));
    }

    /// Has files removed, those first that come first. One that is not there is no failure.
    pub(crate) fn remove_files(&mut self, paths: Vec<PathBuf>) {
        if !paths.is_empty() {
            self.in_background(move |io| {
                remove_files(io, &paths);
                None
            });
        }
    }
}

/// Removes files; says of each that stays why.
pub(crate) fn remove_files<I: Io>(io: &mut I, paths: &[PathBuf]) {
    for path in paths {
        match io.remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                crate::log_line!("cannot delete {}: {error}", path.display());
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Mutex;

    use millrace_io::OpenMode;
    use millrace_io::sim::{SimIo, SimWorld};

    use super::*;
    use crate::mailbox::{WakerSlot, mesh};

    #[test]
    fn short_work_goes_between_the_steps_of_long_work() {
        let world = SimWorld::new(1);
        let wakers = [WakerSlot::default(), WakerSlot::default()];
        let mut mailboxes = mesh(&wakers, 8).into_iter();
        let mut shard = mailboxes.next().expect("the first peer is a shard");
        let mailbox = mailboxes.next().expect("the last is the thread");
        let mut thread: Background<SimIo> =
            Background::new(world.make_io(), Arc::default(), mailbox);
        let mut io = world.make_io();
        let path = Path::new("/gone");
        io.open(path, OpenMode::ReadWrite).expect("an empty disk");

        let seen = Arc::new(Mutex::new(Vec::new()));
        let note = |what| {
            let seen = Arc::clone(&seen);
            move || seen.lock().expect("nobody panics").push(what)
        };
        let (step, mut steps) = (note("step"), 0);
        let long = move |_: &mut SimIo| {
            step();
            steps += 1;
            if steps < 3 { Step::Later(0) } else { Step::Done(Box::new(|_| {})) }
        };
        shard.post_to_background(Message::Work(0, Work::Long(Box::new(long))));
        shard.deliver();
        thread.turn(false).expect("the simulation waits");
        let short = note("short");
        let short = move |io: &mut SimIo| {
            short();
            remove_files(io, &[PathBuf::from("/gone"), PathBuf::from("/never")]);
            None
        };
        shard.post_to_background(Message::Work(0, Work::Short(Box::new(short))));
        shard.deliver();
        thread.turn(false).expect("the simulation waits");
        thread.turn(false).expect("the simulation waits");
        assert_eq!(*seen.lock().expect("nobody panics"), ["step", "short", "step", "step"]);
        assert!(io.open(path, OpenMode::Read).is_err(), "removed");
        assert!(matches!(shard.next(), Some(Message::Run(_))), "the end of long work is told");
        assert!(shard.next().is_none() && thread.long.is_empty());
    }
}
