//! The budget of bytes that a shard holds unanswered.
//!
//! Mailboxes have no bound of their own; this budget is theirs. A credit is taken at the door and
//! comes back by being dropped, so no way out of the house can lose one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The budget of one shard.
#[derive(Debug)]
pub(crate) struct CreditPool {
    used_bytes: AtomicUsize,
    bytes_max: usize,
}

impl CreditPool {
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            used_bytes: AtomicUsize::new(0),
            bytes_max,
        })
    }

    /// A credit over `bytes`, or `None` when it would exceed the budget.
    pub(crate) fn try_take(self: &Arc<Self>, bytes: usize) -> Option<Credit> {
        let fits = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.bytes_max);
        self.used_bytes
            .try_update(Ordering::AcqRel, Ordering::Acquire, fits)
            .ok()?;
        Some(Credit {
            pool: self.clone(),
            bytes,
        })
    }

    /// Bytes lent out.
    pub(crate) fn used_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Acquire)
    }
}

/// Bytes of the budget, held until dropped.
#[derive(Debug)]
pub(crate) struct Credit {
    pool: Arc<CreditPool>,
    bytes: usize,
}

impl Drop for Credit {
    fn drop(&mut self) {
        let before = self.pool.used_bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        debug_assert!(before >= self.bytes, "a credit is returned once");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credits_end_at_the_budget_and_come_back() {
        let pool = CreditPool::new(10);
        let first = pool.try_take(6).unwrap();
        assert!(pool.try_take(5).is_none() && pool.try_take(usize::MAX).is_none());
        let second = pool.try_take(4).unwrap();
        assert_eq!(pool.used_bytes(), 10);
        drop(first);
        assert!(pool.try_take(6).is_some());
        drop(second);
        assert_eq!(pool.used_bytes(), 0);
    }
}
