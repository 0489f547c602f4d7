-- A row or more in every table, as an orch at revision 0010 wrote them; NULLs and values side by side.

INSERT INTO datasets (hash, source, classes, counts, bytes, path, created_at)
VALUES ('sha256-of-data', 'digits', '["0", "1"]', '{"train": 8, "val": 4}', 4096, '/data/sets/x', '2026-11-24 12:00:00.000000');

INSERT INTO workers
  (id, host, boot_id, pid_namespace, pid, pid_started, state, devices, versions, artifact_root, started_at, beat, beat_at, ended_at)
VALUES
  ('desk-1', 'desk', 'boot', '4026531836', 100, 12.5, 'active', '["CPU"]', '{"orch": "0.1.0"}', 'root-a',
   '2026-11-24 12:00:00.000000', 7, '2026-11-24 12:01:00.000000', NULL),
  ('desk-0', 'desk', 'boot', '4026531836', 99, 11.5, 'lost', '[]', '{}', NULL,
   '2026-11-24 11:00:00.000000', 3, '2026-11-24 11:01:00.000000', '2026-11-24 11:02:00.000000');

INSERT INTO jobs
  (id, name, submitted_by, tags, priority, "rank", spec, spec_hash, spec_version, idempotency_key, state, stage, wish, run,
   attempt, beat, worker, retries, total_retries, furthest_step, reason, error, hint, progress_done, progress_total,
   progress_unit, progress_epoch, progress_epochs, progress_rate, progress_at, data_hash, artifact_root, best_accuracy,
   submitted_at, not_before, started_at, finished_at)
VALUES
  ('aaaaaaaa', NULL, 'ada', '[]', 0, 1000.0, '{"data": "digits", "epochs": 2}', 'hash-a', 1, NULL, 'queued', 'download', 'run', 1,
   0, 0, NULL, 0, 0, 0, NULL, NULL, NULL, 0, NULL,
   'steps', NULL, NULL, NULL, NULL, NULL, NULL, NULL,
   '2026-11-24 12:00:00.000000', NULL, NULL, NULL),
  ('bbbbbbbb', 'größer', 'ada', '["t1", "t2"]', 3, 2000.5, '{"data": "digits", "epochs": 2}', 'hash-b', 1, 'key-b', 'running', 'train', 'cancel', 2,
   3, 4, 'desk-1', 1, 2, 20, NULL, NULL, NULL, 25, 40,
   'steps', 2, 2, 31.5, '2026-11-24 12:01:30.000000', 'sha256-of-data', 'root-a', 0.75,
   '2026-11-24 11:00:00.000000', NULL, '2026-11-24 12:01:00.000000', NULL),
  ('cccccccc', NULL, 'bob', '[]', 0, 500.0, '{"data": "digits", "epochs": 1}', 'hash-c', 1, NULL, 'failed', 'train', 'run', 1,
   2, 9, NULL, 1, 1, 0, 'diverged', 'The loss is not finite.', 'Use a smaller lr.', 0, NULL,
   'steps', NULL, NULL, NULL, NULL, 'sha256-of-data', NULL, NULL,
   '2026-11-24 10:00:00.000000', NULL, '2026-11-24 10:01:00.000000', '2026-11-24 10:02:00.000000'),
  ('dddddddd', NULL, 'bob', '[]', 0, 400.0, '{"data": "digits", "epochs": 1}', 'hash-d', 1, NULL, 'succeeded', 'evaluate', 'run', 1,
   3, 1, NULL, 0, 0, 10, NULL, NULL, NULL, 4, 4,
   'images', NULL, NULL, NULL, NULL, 'sha256-of-data', 'root-a', 0.5,
   '2026-11-24 09:00:00.000000', NULL, '2026-11-24 09:01:00.000000', '2026-11-24 09:02:00.000000');

INSERT INTO attempts
  (job_id, attempt, run, stage, worker, host, device, artifact_root, started_at, ended_at, outcome, reason, resumed_from,
   first_step, last_step, line_end)
VALUES
  ('bbbbbbbb', 1, 1, 'download', 'desk-0', 'desk', 'download', 'root-a', '2026-11-24 11:00:01.000000', '2026-11-24 11:00:02.000000', 'done', NULL, NULL, NULL, NULL, NULL),
  ('bbbbbbbb', 2, 1, 'train', 'desk-0', 'desk', 'CPU', 'root-a', '2026-11-24 11:00:03.000000', '2026-11-24 11:02:00.000000', 'lost', 'lost', NULL, 0, 23, 20),
  ('bbbbbbbb', 3, 2, 'train', 'desk-1', 'desk', 'CPU', 'root-a', '2026-11-24 12:01:00.000000', NULL, NULL, NULL, 2, 20, NULL, NULL),
  ('dddddddd', 3, 1, 'evaluate', 'desk-1', 'desk', 'CPU', 'root-a', '2026-11-24 09:01:30.000000', '2026-11-24 09:02:00.000000', 'done', NULL, NULL, NULL, 10, NULL),
  ('dddddddd', 2, 1, 'train', 'desk-1', 'desk', 'CPU', 'root-a', '2026-11-24 09:01:00.000000', '2026-11-24 09:01:20.000000', 'yielded', NULL, NULL, 0, 10, NULL);

INSERT INTO events (job_id, run, attempt, at, actor, kind, old_state, new_state, stage, reason, detail)
VALUES
  ('bbbbbbbb', 1, 0, '2026-11-24 11:00:00.000000', 'ada', 'submitted', NULL, 'queued', 'download', NULL, NULL),
  ('bbbbbbbb', 1, 2, '2026-11-24 11:02:00.000000', 'desk-1', 'lost', 'running', 'queued', 'train', 'lost', 'no beat (retry 1 of 5)');

INSERT INTO checkpoints
  (job_id, attempt, step, epoch, path, bytes, sha256, best, last, accuracy, created_at)
VALUES
  ('bbbbbbbb', 2, 20, 1, 'bbbbbbbb/attempt-0002/checkpoints/step-0000020.safetensors', 1234, 'sum-b', true, true, 0.75, '2026-11-24 11:01:50.000000');

INSERT INTO epoch_metrics (job_id, attempt, epoch, split, step, loss, accuracy, images, seconds, lr)
VALUES
  ('bbbbbbbb', 2, 1, 'train', 20, 0.7, 0.5, 8, 1.5, 0.0001),
  ('bbbbbbbb', 2, 1, 'val', 20, NULL, 0.75, 4, 0.5, NULL);

INSERT INTO evaluations
  (job_id, attempt, checkpoint_step, checkpoint_sha256, loss, accuracy, images, classes, "precision", recall, confusion, seconds, created_at)
VALUES
  ('dddddddd', 3, 10, 'sum-d', 0.6, 0.5, 4, '["0", "1"]', '[0.5, 0.5]', '[0.5, 0.5]', '[[1, 1], [1, 1]]', 0.25, '2026-11-24 09:02:00.000000');

INSERT INTO log_chunks (job_id, attempt, sequence, text)
VALUES ('bbbbbbbb', 2, 0, 'epoch 1 of 2'), ('bbbbbbbb', 2, 1, ' half way');

INSERT INTO step_metrics (job_id, attempt, name, step, value)
VALUES ('bbbbbbbb', 2, 'loss', 19, 0.7), ('bbbbbbbb', 2, 'loss', 20, NULL), ('bbbbbbbb', 2, 'loss', 21, 9.9);

INSERT INTO deleted_jobs (id, state, run, attempt, deleted_by, deleted_at)
VALUES ('eeeeeeee', 'failed', 1, 2, 'bob', '2026-11-24 11:00:00.000000');

INSERT INTO dependencies (job_id, needs, rule, ended)
VALUES ('aaaaaaaa', 'dddddddd', 'ok', 'succeeded'), ('aaaaaaaa', 'cccccccc', 'any', 'failed');

UPDATE jobs SET parent = 'dddddddd', start_step = 10, note = 'größer', start_after = '2026-11-24 11:30:00.000000'
WHERE id = 'aaaaaaaa';

UPDATE attempts SET submitted_by = 'ada' WHERE job_id = 'bbbbbbbb';

UPDATE workers SET wish = 'drain', limits = '{"users": {"*": 2}, "tags": {}}' WHERE id = 'desk-0';

INSERT INTO tellings (job_id, target, occasions)
VALUES ('bbbbbbbb', 'https://example.org/hook', '["failed"]');

INSERT INTO notices (job_id, target, message, tries, maybe_heard, due_at, told_at)
VALUES
  ('cccccccc', 'https://example.org/hook', '{"event": "failed"}', 1, 0, NULL, '2026-11-24 10:02:01.000000'),
  ('dddddddd', 'https://example.org/hook', '{"event": "succeeded"}', 8, 1, NULL, NULL);

UPDATE epoch_metrics SET usage = '{"cores": 1.5, "memory": 1000, "waiting": 0.25, "gpu": null, "gpu_memory": null}'
WHERE split = 'train';

INSERT INTO sources (job_id, origins, revision, branch, dirty, diff, diff_sha256, diff_bytes, remark)
VALUES
  ('aaaaaaaa', '{"epochs": "flag"}', 'c0ffee', 'main', TRUE, '+größer', 'sum-of-diff', 8, 'it was cut'),
  ('bbbbbbbb', '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL);

UPDATE attempts SET environment =
  '{"versions": {"orch": "0.1.0"}, "device": "cpu", "cpu": "a processor", "instructions": "AVX2", "threads": 2, "layout": "contiguous", "precision": "fp32", "seed": 0}'
WHERE job_id = 'bbbbbbbb' AND attempt = 2;

UPDATE jobs SET demand = '{"device":"cpu"}' WHERE id = 'bbbbbbbb';

UPDATE workers SET slots = '[{"id": "cpu.0", "kind": "cpu", "name": "CPU", "memory": null}]', labels = '["lab"]' WHERE id = 'desk-1';

UPDATE attempts SET devices = '["cpu.0"]' WHERE job_id = 'bbbbbbbb' AND attempt = 3;

INSERT INTO copies (host, hash, source, seen_at)
VALUES ('desk', 'sha256-of-data', 'https://example.org/data.zip', '2026-11-24 11:00:10.000000');
