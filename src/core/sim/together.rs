//! Answers that are told together, beside the same told one by one: whatever they are, and whatever else has happened to
//! the tasks, the same is done.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::{Action, Config, Event, Scheduler, ShutdownMode, Terms, Time};
use super::rng::Rng;
use crate::ids::{KindId, ProgramId, TaskId, WorkerId};

#[test]
fn answers_that_come_together_are_as_good_as_one_by_one() {
    for seed in 0..3_000 {
        let mut rng = Rng::new(seed);
        let window_budget = Duration::from_micros(20);
        let config = Config { workers_min: 2, workers_max: 3, window_budget, ..Config::default() };
        let [mut together, mut one_by_one] = [(); 2].map(|()| Scheduler::new(config, 1));
        let (mut held, mut next, mut now) = (vec![VecDeque::new(); 64], 0, Time::ZERO);
        for _ in 0..60 {
            now = now + Duration::from_nanos(rng.below(2_000));
            let worker = rng.below(4) as usize;
            let mut answers = Vec::new();
            let event = match rng.below(12) {
                0..5 => {
                    next += 1;
                    let once = rng.permille(20);
                    let timeout = rng.permille(50).then_some(Duration::from_micros(3));
                    let terms = Terms { deadline: None, timeout, once };
                    let (task, kind) = (TaskId(next), KindId(rng.below(2) as u32));
                    Event::Submit { task, program: ProgramId(0), kind, terms }
                }
                5 => Event::Cancel { task: TaskId(rng.below(next + 1)) },
                6 if rng.permille(100) => Event::Shutdown { mode: ShutdownMode::Cancel },
                _ => {
                    let count = rng.below(held[worker].len() as u64 + 1) as usize;
                    answers.extend(held[worker].drain(..count));
                    answers.extend(rng.permille(30).then_some(TaskId(rng.below(next + 1))));
                    Event::Tick
                }
            };
            let _ = [&mut together, &mut one_by_one].map(|scheduler| scheduler.handle(now, event));
            let (id, ran) = (WorkerId(worker as u32), Duration::from_nanos(300));
            together.handle_answers(now, id, answers.iter().map(|&task| (task, ran)));
            for task in answers {
                one_by_one.handle(now, Event::Answered { worker: id, task, ran });
            }
            let [actions, others] = [&mut together, &mut one_by_one].map(actions);
            assert_eq!(actions, others, "seed {seed}");
            for action in actions {
                match action {
                    Action::Send { worker, task, .. } => held[worker.0 as usize].push_back(task),
                    Action::Spawn { worker, .. } => {
                        let _ = [&mut together, &mut one_by_one]
                            .map(|scheduler| scheduler.handle(now, Event::Ready { worker }));
                    }
                    Action::Retire { worker } => {
                        let _ = [&mut together, &mut one_by_one]
                            .map(|scheduler| scheduler.handle(now, Event::Gone { worker }));
                    }
                    Action::Recant { .. }
                    | Action::Recall { .. }
                    | Action::Resume { .. }
                    | Action::Abandon { .. }
                    | Action::Kill { .. }
                    | Action::Resolve { .. }
                    | Action::Close => {}
                }
            }
            assert_eq!(together.stats(), one_by_one.stats(), "seed {seed}");
            together.assert_consistent();
        }
    }
}

/// What is to be done, and no more than there can be, in case that it has no end.
fn actions(scheduler: &mut Scheduler) -> Vec<Action> {
    std::iter::from_fn(|| scheduler.poll()).take(10_000).collect()
}
