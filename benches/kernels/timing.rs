//! Tasks timed in turn.

use std::time::Instant;

/// A task is timed this often at most, and at least.
const ROUNDS_MAX: usize = 21;
const ROUNDS_MIN: usize = 3;
/// Beyond the fewest rounds, a task that has taken this long is not run again.
const TASK_MAX_S: f64 = 0.3;

/// Something to time.
pub type Task<'a> = Box<dyn FnMut() + 'a>;

/// Runs all tasks in turn, round after round, so that a slow moment of the machine hits all alike. Gives the median time of
/// each in seconds.
pub fn medians_s(tasks: &mut [Task<'_>]) -> Vec<f64> {
    let mut times_s = vec![Vec::new(); tasks.len()];
    for round in 0..ROUNDS_MAX {
        for (task, times_s) in tasks.iter_mut().zip(&mut times_s) {
            if round < ROUNDS_MIN || times_s.iter().sum::<f64>() < TASK_MAX_S {
                let start = Instant::now();
                task();
                times_s.push(start.elapsed().as_secs_f64());
            }
        }
    }
    let median = |mut times_s: Vec<f64>| {
        times_s.sort_by(f64::total_cmp);
        times_s[times_s.len() / 2]
    };
    times_s.into_iter().map(median).collect()
}
