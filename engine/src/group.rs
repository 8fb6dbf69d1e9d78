//! Group commit: requests queue up, the first one leads, and does the work of all that wait with
//! it.
//!
//! Leadership is a token with a `Drop`, not a lock: when a leader's future is dropped before its
//! work began, the group goes back to the head of the queue and the role is handed on; dropped
//! later, the group is told that its outcome is unknown.

use core::future::Future;
use core::mem;
use std::collections::VecDeque;
use std::sync::Arc;

use event_listener::Event;

use crate::sync::Mutex;

/// What a queue's leader does.
pub trait Work {
    /// A request.
    type Item: Send;
    /// Its outcome.
    type Reply: Send;

    /// Whether `next` may be done together with the requests of `group`, which is not empty.
    fn joins(&self, group: &[Self::Item], next: &Self::Item) -> bool;

    /// Does a group and answers each request, in order.
    fn run(&self, items: &mut Vec<Self::Item>) -> impl Future<Output = Vec<Self::Reply>>;

    /// The answer to requests whose leader vanished in the middle of their work.
    fn abandoned(&self) -> Self::Reply;
}

#[derive(Debug)]
enum Slot<T, R> {
    Waiting(T),
    Taken,
    Lead(T),
    Done(R),
    Gone,
}

#[derive(Debug)]
struct Ticket<T, R> {
    slot: Mutex<Slot<T, R>>,
    event: Event,
}

#[derive(Debug)]
struct State<T, R> {
    pending: VecDeque<Arc<Ticket<T, R>>>,
    leading: bool,
}

#[derive(Debug)]
enum Entered<T, R> {
    Leading(T),
    Waiting(Arc<Ticket<T, R>>),
}

/// A queue whose first request leads.
#[derive(Debug)]
pub struct GroupQueue<T, R> {
    state: Mutex<State<T, R>>,
}

/// A request's place in a queue. Dropped, the request is not done, unless another's leader has
/// begun to.
#[derive(Debug)]
pub struct Place<T: Send, R: Send> {
    queue: Arc<GroupQueue<T, R>>,
    entered: Option<Entered<T, R>>,
}

impl<T: Send, R: Send> Place<T, R> {
    /// Waits for the request's turn and returns its answer; leads when it is the first.
    pub async fn finish<W: Work<Item = T, Reply = R>>(mut self, work: &W) -> R {
        match self.entered.take() {
            Some(Entered::Leading(item)) => self.queue.lead(item, work).await,
            Some(Entered::Waiting(ticket)) => self.queue.wait(ticket, work).await,
            None => work.abandoned(),
        }
    }
}

impl<T: Send, R: Send> Drop for Place<T, R> {
    fn drop(&mut self) {
        match self.entered.take() {
            Some(Entered::Leading(item)) => {
                self.queue.hand_on();
                drop(item);
            }
            Some(Entered::Waiting(ticket)) => drop(Waiter { queue: &*self.queue, ticket }),
            None => {}
        }
    }
}

impl<T, R> Default for GroupQueue<T, R> {
    fn default() -> Self {
        Self { state: Mutex::new(State { pending: VecDeque::new(), leading: false }) }
    }
}

impl<T: Send, R: Send> GroupQueue<T, R> {
    /// Requests that wait for a leader.
    pub fn len(&self) -> usize {
        self.state.lock().pending.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether somebody leads: a request is being done, or is about to be.
    pub fn is_led(&self) -> bool {
        self.state.lock().leading
    }

    /// Queues a request and returns its answer; leads when nobody does. Not cancel-safe: dropping
    /// the future leaves open whether the request was done.
    pub async fn submit<W: Work<Item = T, Reply = R>>(&self, item: T, work: &W) -> R {
        match self.enter(item) {
            Entered::Leading(item) => self.lead(item, work).await,
            Entered::Waiting(ticket) => self.wait(ticket, work).await,
        }
    }

    /// Queues a request without waiting for anything: what is submitted from here on comes behind
    /// it. Nothing behind it is done before its place is finished or dropped.
    pub fn reserve(self: &Arc<Self>, item: T) -> Place<T, R> {
        Place { queue: Arc::clone(self), entered: Some(self.enter(item)) }
    }

    async fn wait<W: Work<Item = T, Reply = R>>(&self, ticket: Arc<Ticket<T, R>>, work: &W) -> R {
        let waiter = Waiter { queue: self, ticket };
        loop {
            let listener = waiter.ticket.event.listen();
            let slot = {
                let mut slot = waiter.ticket.slot.lock();
                match &*slot {
                    Slot::Waiting(_) | Slot::Taken => None,
                    Slot::Lead(_) | Slot::Done(_) | Slot::Gone => {
                        Some(mem::replace(&mut *slot, Slot::Gone))
                    }
                }
            };
            match slot {
                Some(Slot::Done(reply)) => return reply,
                Some(Slot::Lead(item)) => return self.lead(item, work).await,
                Some(Slot::Waiting(_) | Slot::Taken | Slot::Gone) => return work.abandoned(),
                None => listener.await,
            }
        }
    }

    fn enter(&self, item: T) -> Entered<T, R> {
        let mut state = self.state.lock();
        if !state.leading {
            state.leading = true;
            return Entered::Leading(item);
        }
        let ticket =
            Arc::new(Ticket { slot: Mutex::new(Slot::Waiting(item)), event: Event::new() });
        state.pending.push_back(Arc::clone(&ticket));
        Entered::Waiting(ticket)
    }

    async fn lead<W: Work<Item = T, Reply = R>>(&self, own: T, work: &W) -> R {
        let mut token = Token {
            queue: self,
            work,
            items: vec![own],
            tickets: Vec::new(),
            running: false,
            finished: false,
        };
        token.gather();
        token.running = true;
        let mut replies = work.run(&mut token.items).await.into_iter();
        token.finished = true;
        let own_reply = replies.next().unwrap_or_else(|| work.abandoned());
        for ticket in token.tickets.drain(..) {
            let reply = replies.next().unwrap_or_else(|| work.abandoned());
            ticket.finish(reply);
        }
        drop(token);
        own_reply
    }

    fn hand_on(&self) {
        let mut state = self.state.lock();
        while let Some(next) = state.pending.pop_front() {
            let mut slot = next.slot.lock();
            match mem::replace(&mut *slot, Slot::Gone) {
                Slot::Waiting(item) => {
                    *slot = Slot::Lead(item);
                    drop(slot);
                    next.event.notify(1);
                    return;
                }
                other @ (Slot::Taken | Slot::Lead(_) | Slot::Done(_) | Slot::Gone) => {
                    *slot = other;
                }
            }
        }
        state.leading = false;
    }
}

impl<T, R> Ticket<T, R> {
    fn finish(&self, reply: R) {
        *self.slot.lock() = Slot::Done(reply);
        self.event.notify(1);
    }
}

/// A request that waits. Dropped while it waits, it leaves the queue; dropped after the role was
/// handed to it, it hands the role on.
struct Waiter<'a, T: Send, R: Send> {
    queue: &'a GroupQueue<T, R>,
    ticket: Arc<Ticket<T, R>>,
}

impl<T: Send, R: Send> Drop for Waiter<'_, T, R> {
    fn drop(&mut self) {
        let slot = {
            // The state's lock first, as everywhere: a ticket is taken only under it.
            let mut state = self.queue.state.lock();
            state.pending.retain(|t| !Arc::ptr_eq(t, &self.ticket));
            mem::replace(&mut *self.ticket.slot.lock(), Slot::Gone)
        };
        if matches!(slot, Slot::Lead(_)) {
            self.queue.hand_on();
        }
    }
}

struct Token<'a, T: Send, R: Send, W: Work<Item = T, Reply = R>> {
    queue: &'a GroupQueue<T, R>,
    work: &'a W,
    items: Vec<T>,
    tickets: Vec<Arc<Ticket<T, R>>>,
    running: bool,
    finished: bool,
}

impl<T: Send, R: Send, W: Work<Item = T, Reply = R>> Token<'_, T, R, W> {
    fn gather(&mut self) {
        let mut state = self.queue.state.lock();
        while let Some(next) = state.pending.front() {
            let mut slot = next.slot.lock();
            match &*slot {
                Slot::Waiting(item) if self.work.joins(&self.items, item) => {}
                Slot::Waiting(_) => break,
                Slot::Taken | Slot::Lead(_) | Slot::Done(_) | Slot::Gone => {
                    drop(slot);
                    state.pending.pop_front();
                    continue;
                }
            }
            if let Slot::Waiting(item) = mem::replace(&mut *slot, Slot::Taken) {
                self.items.push(item);
            }
            drop(slot);
            if let Some(ticket) = state.pending.pop_front() {
                self.tickets.push(ticket);
            }
        }
    }
}

impl<T: Send, R: Send, W: Work<Item = T, Reply = R>> Drop for Token<'_, T, R, W> {
    fn drop(&mut self) {
        if !self.finished {
            if self.running {
                for ticket in self.tickets.drain(..) {
                    ticket.finish(self.work.abandoned());
                }
            } else {
                let mut state = self.queue.state.lock();
                let mut items = self.items.drain(..);
                drop(items.next());
                let back: Vec<_> = self.tickets.drain(..).zip(items).collect();
                for (ticket, item) in back.into_iter().rev() {
                    *ticket.slot.lock() = Slot::Waiting(item);
                    state.pending.push_front(ticket);
                }
            }
        }
        self.queue.hand_on();
    }
}

#[cfg(test)]
mod tests {
    use core::pin::pin;
    use core::task::{Context, Poll, Waker};

    use super::*;

    struct Sum {
        gate: Event,
        open: core::sync::atomic::AtomicBool,
    }

    impl Work for Sum {
        type Item = u64;
        type Reply = Option<u64>;

        fn joins(&self, group: &[u64], _next: &u64) -> bool {
            group.len() < 3
        }

        async fn run(&self, items: &mut Vec<u64>) -> Vec<Option<u64>> {
            if !self.open.load(core::sync::atomic::Ordering::SeqCst) {
                self.gate.listen().await;
            }
            let sum = items.iter().sum();
            items.iter().map(|_| Some(sum)).collect()
        }

        fn abandoned(&self) -> Option<u64> {
            None
        }
    }

    fn sum() -> Sum {
        Sum { gate: Event::new(), open: core::sync::atomic::AtomicBool::new(false) }
    }

    #[test]
    fn those_who_wait_are_done_together_and_the_role_is_handed_on() {
        let (queue, work) = (GroupQueue::default(), sum());
        let mut cx = Context::from_waker(Waker::noop());
        let mut futures: Vec<_> = (1..=5_u64).map(|n| Box::pin(queue.submit(n, &work))).collect();
        for f in &mut futures {
            assert!(f.as_mut().poll(&mut cx).is_pending());
        }
        work.open.store(true, core::sync::atomic::Ordering::SeqCst);
        work.gate.notify(usize::MAX);
        let got: Vec<_> = futures
            .iter_mut()
            .map(|f| match f.as_mut().poll(&mut cx) {
                Poll::Ready(r) => r,
                Poll::Pending => panic!("still waits"),
            })
            .collect();
        assert_eq!(got, [Some(1), Some(9), Some(9), Some(9), Some(5)]);
    }

    #[test]
    fn a_leader_dropped_in_its_work_answers_its_group_and_hands_the_role_on() {
        let (queue, work) = (GroupQueue::default(), sum());
        let mut cx = Context::from_waker(Waker::noop());
        let mut first = Box::pin(queue.submit(1_u64, &work));
        assert!(first.as_mut().poll(&mut cx).is_pending());
        let mut second = pin!(queue.submit(2, &work));
        assert!(second.as_mut().poll(&mut cx).is_pending());
        drop(first);
        work.open.store(true, core::sync::atomic::Ordering::SeqCst);
        assert_eq!(second.as_mut().poll(&mut cx), Poll::Ready(Some(2)));
    }

    #[test]
    fn a_place_is_taken_at_once_and_given_up_when_it_is_dropped() {
        let (queue, work) = (Arc::new(GroupQueue::default()), sum());
        work.open.store(true, core::sync::atomic::Ordering::SeqCst);
        let mut cx = Context::from_waker(Waker::noop());
        let (first, second) = (queue.reserve(1_u64), queue.reserve(2));
        let mut third = pin!(queue.submit(4, &work));
        assert!(third.as_mut().poll(&mut cx).is_pending(), "nobody passes a place");
        let mut second = pin!(second.finish(&work));
        assert!(second.as_mut().poll(&mut cx).is_pending());
        drop(first);
        assert_eq!(second.as_mut().poll(&mut cx), Poll::Ready(Some(6)));
        assert_eq!(third.as_mut().poll(&mut cx), Poll::Ready(Some(6)));
        drop(queue.reserve(8));
        assert!(!queue.is_led() && queue.is_empty());
    }

    #[test]
    fn a_waiter_that_is_dropped_leaves_the_queue() {
        let (queue, work) = (GroupQueue::default(), sum());
        let mut cx = Context::from_waker(Waker::noop());
        let mut first = pin!(queue.submit(1_u64, &work));
        assert!(first.as_mut().poll(&mut cx).is_pending());
        let mut second = Box::pin(queue.submit(2, &work));
        assert!(second.as_mut().poll(&mut cx).is_pending());
        drop(second);
        assert!(queue.is_empty());
    }
}
