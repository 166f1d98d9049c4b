//! Asking several shards, one after the other, and going on with all their answers.

use millrace_io::Io;

use crate::partitions::PartitionId;
use crate::shard::Shard;

impl<I: Io> Shard<I> {
    /// Asks the owner of each item's partition, then runs `then` on this shard with the answers, in
    /// no particular order. For administration: the shards are visited in turn.
    pub(crate) fn gather<Q: Send + 'static, A: Send + 'static>(
        &mut self,
        items: Vec<Q>,
        partition: impl Fn(&Q) -> PartitionId,
        ask: fn(&mut Self, Q) -> A,
        then: impl FnOnce(&mut Self, Vec<A>) + Send + 'static,
    ) {
        let rest = self.by_owner(items, partition);
        visit(self, Tour { origin: self.id, rest, answers: Vec::new(), ask }, then);
    }

    /// As [`Shard::gather`], but asks every shard the same.
    pub(crate) fn gather_everywhere<Q: Clone + Send + 'static, A: Send + 'static>(
        &mut self,
        item: Q,
        ask: fn(&mut Self, Q) -> A,
        then: impl FnOnce(&mut Self, Vec<A>) + Send + 'static,
    ) {
        let rest = (0..self.mailbox.shards()).map(|shard| (shard, vec![item.clone()])).collect();
        visit(self, Tour { origin: self.id, rest, answers: Vec::new(), ask }, then);
    }
}

struct Tour<I: Io, Q, A> {
    origin: usize,
    rest: Vec<(usize, Vec<Q>)>,
    answers: Vec<A>,
    ask: fn(&mut Shard<I>, Q) -> A,
}

fn visit<I: Io, Q: Send + 'static, A: Send + 'static>(
    shard: &mut Shard<I>,
    mut tour: Tour<I, Q, A>,
    then: impl FnOnce(&mut Shard<I>, Vec<A>) + Send + 'static,
) {
    match tour.rest.pop() {
        None => shard.run_on(tour.origin, move |shard| then(shard, tour.answers)),
        Some((owner, items)) => shard.run_on(owner, move |shard| {
            for item in items {
                let answer = (tour.ask)(shard, item);
                tour.answers.push(answer);
            }
            visit(shard, tour, then);
        }),
    }
}
