/* app/lock: who is judged to be gone, and what becomes of the file. Other owners are processes of
 * this machine, or files that name a machine which does not exist. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "app/lock.h"
#include "base/clock.h"

static char folder[] = "/tmp/test_lock_XXXXXX";
static char output[64], path[80], other[64];
static struct report report;

static void set_up(void)
{
    cr_assert(mkdtemp(folder));
    snprintf(output, sizeof output, "%s/out.jsonl", folder);
    snprintf(path, sizeof path, "%s.lock", output);
    snprintf(other, sizeof other, "%s/other.jsonl", folder);
    report.stream = stderr;
    report.is_quiet = true;
}

static void tear_down(void)
{
    unlink(path);
    unlink(output);
    unlink(other);
    cr_expect_eq(rmdir(folder), 0, "something was left behind");
}

TestSuite(lock, .init = set_up, .fini = tear_down, .timeout = 120);

/* ---- judgement ---- */

enum { HERE = 1, ALIVE = 2, RENEWED = 4, OLD = 8, SAME_JOB = 16, RESTARTED = 32 };

static enum lock_verdict judge(int facts)
{
    struct lock_facts owner = {.boot = "b", .pid_space = "p", .pid = 7, .job = "c:1"};
    struct lock_facts own = owner;
    own.pid = 8;
    if (!(facts & HERE)) strcpy(owner.boot, "elsewhere");
    if (!(facts & SAME_JOB)) strcpy(owner.job, "c:2");
    own.n_restarts = (facts & RESTARTED) ? 1 : 0;
    const struct lock_sight sight = {.is_alive = facts & ALIVE,
                                     .is_renewed = facts & RENEWED,
                                     .age_ns = (facts & OLD) ? LOCK_DEAD_NS : LOCK_DEAD_NS - 1};
    return lock_judge(&owner, &own, &sight);
}

Test(lock, an_owner_that_can_be_seen_decides)
{
    for (int rest = 0; rest < 64; rest += RENEWED) {
        cr_expect_eq(judge(HERE | ALIVE | rest), LOCK_REFUSE, "%d", rest);
        cr_expect_eq(judge(HERE | rest), LOCK_TAKE, "%d", rest);
    }
}

Test(lock, elsewhere_the_scheduler_decides_and_then_the_heartbeat)
{
    for (int alive = 0; alive <= ALIVE; alive += ALIVE) {
        cr_expect_eq(judge(alive), LOCK_WAIT);
        cr_expect_eq(judge(alive | OLD), LOCK_TAKE);
        cr_expect_eq(judge(alive | RENEWED), LOCK_REFUSE);
        cr_expect_eq(judge(alive | SAME_JOB), LOCK_WAIT, "another task of the job");
        cr_expect_eq(judge(alive | SAME_JOB | RESTARTED), LOCK_TAKE);
        cr_expect_eq(judge(alive | SAME_JOB | RESTARTED | RENEWED), LOCK_TAKE);
        cr_expect_eq(judge(alive | RESTARTED), LOCK_WAIT, "the restarts of another job");
        cr_expect_eq(judge(alive | RESTARTED | RENEWED), LOCK_REFUSE);
    }
}

Test(lock, another_container_is_another_machine)
{
    const struct lock_facts own = {.boot = "b", .pid_space = "p", .pid = 7};
    struct lock_facts owner = own;
    cr_expect(lock_is_local(&owner, &own));
    strcpy(owner.pid_space, "q");
    cr_expect_not(lock_is_local(&owner, &own));
    cr_expect_not(lock_is_local(&(struct lock_facts){.pid = 7}, &(struct lock_facts){.pid = 7}),
                  "nothing known is nothing alike");
}

Test(lock, the_job_is_the_schedulers)
{
    struct lock_facts facts;
    setenv("SLURM_JOB_ID", "12", 1);
    setenv("SLURM_CLUSTER_NAME", "sun", 1);
    setenv("SLURM_RESTART_COUNT", "2", 1);
    unsetenv("SLURM_ARRAY_JOB_ID");
    lock_know_self(&facts);
    cr_expect_str_eq(facts.job, "sun:12");
    cr_expect_eq(facts.n_restarts, 2);
    cr_expect_eq(facts.pid, getpid());
    cr_expect(facts.start_ticks > 0);
    setenv("SLURM_ARRAY_JOB_ID", "11", 1);
    setenv("SLURM_ARRAY_TASK_ID", "4", 1);
    lock_know_self(&facts);
    cr_expect_str_eq(facts.job, "sun:11_4");
}

/* ---- the file ---- */

/* A lock with these facts, renewed `age_s` ago. */
static void leave(const struct lock_facts *facts, int age_s)
{
    FILE *file = fopen(path, "w");
    cr_assert(file);
    fprintf(file, "{\"pid\":%lld,\"host\":\"%s\",\"boot\":\"%s\",\"pid_space\":\"%s\",",
            (long long)facts->pid, facts->host, facts->boot, facts->pid_space);
    fprintf(file, "\"start_ticks\":%llu}\n", (unsigned long long)facts->start_ticks);
    fclose(file);
    struct timespec times[2];
    clock_gettime(CLOCK_REALTIME, &times[0]);
    times[0].tv_sec -= age_s;
    times[1] = times[0];
    cr_assert_eq(utimensat(AT_FDCWD, path, times, 0), 0);
}

static const struct lock_facts foreign = {
    .host = "moon", .boot = "x", .pid_space = "y", .pid = 41, .start_ticks = 5};

/* Whether it is ours, and gone when it is given back; how long that took. */
static double expect_taken(void)
{
    struct lock *lock = NULL;
    struct error err = {0};
    char line[512], pid[32];
    uint64_t begin_ns = clock_now_ns();
    cr_assert(lock_take(&lock, output, &report, &err), "%s", err.message);
    uint64_t end_ns = clock_now_ns();
    FILE *file = fopen(path, "r");
    cr_assert(file && fgets(line, sizeof line, file));
    fclose(file);
    snprintf(pid, sizeof pid, "\"pid\":%d,", (int)getpid());
    cr_expect(strstr(line, pid), "%s", line);
    cr_expect(lock_renew(lock, &err));
    lock_release(lock);
    cr_expect_eq(access(path, F_OK), -1);
    return (double)(end_ns - begin_ns) * 1e-9;
}

static void expect_refused(const char *part)
{
    struct lock *lock = NULL;
    struct error err = {0};
    cr_assert_not(lock_take(&lock, output, &report, &err));
    cr_expect_eq(err.code, ERROR_CREATE);
    cr_expect(strstr(err.message, part), "%s", err.message);
}

/* A process that holds the lock until it is killed. */
static pid_t start_owner(void)
{
    int ready[2];
    char byte;
    cr_assert_eq(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct lock *lock;
        if (lock_take(&lock, output, &report, NULL) && write(ready[1], "T", 1) == 1) pause();
        _exit(1);
    }
    close(ready[1]);
    cr_assert_eq(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return pid;
}

Test(lock, is_there_while_it_is_held)
{
    cr_expect_lt(expect_taken(), 1);
    cr_expect_lt(expect_taken(), 1);
}

Test(lock, a_living_owner_is_named_and_a_killed_one_is_replaced_at_once)
{
    char pid_text[64];
    pid_t pid = start_owner();
    snprintf(pid_text, sizeof pid_text, "pid %d", (int)pid);
    expect_refused(pid_text);
    expect_refused("is being written by another run: host ");
    kill(pid, SIGKILL);
    siginfo_t info;
    cr_assert_eq(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
    cr_expect_lt(expect_taken(), 1, "a zombie is no owner");
    waitpid(pid, NULL, 0);
}

Test(lock, a_number_that_was_given_again_is_no_owner)
{
    struct lock_facts facts;
    lock_know_self(&facts);
    facts.pid = getppid();
    facts.start_ticks++;
    leave(&facts, 0);
    cr_expect_lt(expect_taken(), 1);
}

Test(lock, another_machine_is_waited_for_as_long_as_it_may_live)
{
    leave(&foreign, 1000);
    cr_expect_lt(expect_taken(), 1);
    leave(&foreign, (int)(LOCK_DEAD_NS / 1000000000) - 2);
    double waited_s = expect_taken();
    cr_expect(waited_s > 0.5 && waited_s < 20, "%g s", waited_s);
}

Test(lock, what_does_not_say_who_it_is_is_waited_for_too)
{
    for (int i = 0; i < 2; i++) {
        leave(&foreign, 0);
        cr_assert_eq(truncate(path, i * 20), 0);
        struct timespec times[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
        cr_assert_eq(utimensat(AT_FDCWD, path, times, 0), 0);
        cr_expect_lt(expect_taken(), 1);
    }
}

Test(lock, a_heartbeat_while_we_wait_ends_the_wait)
{
    leave(&foreign, 60);
    pid_t pid = fork();
    if (pid == 0) {
        usleep(500000);
        _exit(utimensat(AT_FDCWD, path, NULL, 0) != 0);
    }
    expect_refused("host moon, pid 41");
    waitpid(pid, NULL, 0);
}

Test(lock, a_link_to_an_output_has_the_lock_of_its_target)
{
    struct lock *lock = NULL;
    struct error err = {0};
    close(open(output, O_WRONLY | O_CREAT, 0600));
    cr_assert_eq(symlink(output, other), 0);
    pid_t pid = start_owner();
    cr_expect_not(lock_take(&lock, other, &report, &err));
    cr_expect(strstr(err.message, "is being written by another run"), "%s", err.message);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

Test(lock, a_link_in_place_of_a_lock_is_refused_and_not_waited_for)
{
    char takeover[96];
    cr_assert_eq(symlink("nowhere", path), 0);
    expect_refused("out.jsonl.lock, which keeps");
    cr_assert_eq(unlink(path), 0);
    snprintf(takeover, sizeof takeover, "%s.takeover", path);
    cr_assert_eq(symlink("nowhere", takeover), 0);
    leave(&foreign, 1000);
    expect_refused("out.jsonl.lock.takeover, which keeps");
    unlink(takeover);
}

static void leave_text(const char *file_path, const char *text, size_t n, time_t date)
{
    FILE *file = fopen(file_path, "w");
    cr_assert(file && fwrite(text, 1, n, file) == n);
    fclose(file);
    struct timespec times[2] = {{.tv_sec = date}, {.tv_sec = date}};
    cr_assert_eq(utimensat(AT_FDCWD, file_path, times, 0), 0);
}

Test(lock, a_file_of_others_is_no_lock_and_stays)
{
    static const char *const texts[] = {"precious", "{}",          "{\"pid\":5,\"host\":\"other\"}",
                                        "?",        "{\"pids\":[", "\0\0x"};
    char takeover[96];
    snprintf(takeover, sizeof takeover, "%s.takeover", path);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        size_t n = texts[i][0] == '\0' ? 3 : strlen(texts[i]);
        leave_text(path, texts[i], n, 1000);
        expect_refused("out.jsonl.lock exists, and is no lock of this program");
        leave(&foreign, 1000);
        leave_text(takeover, texts[i], n, 1000);
        expect_refused("out.jsonl.lock.takeover exists, and is no lock of this program");
    }
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(unlink(takeover), 0);
    cr_assert_eq(mkfifo(path, 0600), 0);
    expect_refused("is no lock of this program");
}

/* A date may lie hundreds of years ahead, which must not count as age. */
Test(lock, a_date_in_the_future_is_no_age)
{
    struct stat status;
    leave_text(path, "", 0, (time_t)14830000000);
    cr_assert_eq(stat(path, &status), 0);
    if (status.st_mtime != (time_t)14830000000) cr_skip("dates do not go that far here");
    pid_t pid = fork();
    if (pid == 0) {
        struct lock *lock;
        lock_take(&lock, output, &report, NULL);
        _exit(1);
    }
    usleep(500000);
    cr_expect_eq(waitpid(pid, NULL, WNOHANG), 0, "it was taken at once");
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

Test(lock, where_there_can_be_no_file_there_is_no_run)
{
    struct lock *lock = NULL;
    struct error err = {0};
    cr_expect_not(lock_take(&lock, "/proc/out.jsonl", &report, &err));
    cr_expect_eq(err.code, ERROR_CREATE);
    cr_expect(strstr(err.message, "cannot create /proc/out.jsonl.lock, which keeps"), "%s",
              err.message);
}

Test(lock, is_renewed_while_it_is_held_and_not_once_it_is_lost)
{
    struct lock *lock = NULL;
    struct error err = {0};
    struct stat status;
    struct timespec times[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    cr_assert(lock_take(&lock, output, &report, &err), "%s", err.message);
    cr_assert_eq(utimensat(AT_FDCWD, path, times, 0), 0);
    usleep(7000000);
    cr_assert_eq(stat(path, &status), 0);
    cr_expect_gt(status.st_mtime, 1000, "no heartbeat");
    leave(&foreign, 1);
    usleep(5100000);
    cr_expect_not(lock_renew(lock, &err));
    cr_expect(strstr(err.message, "was taken over by another run (host moon"), "%s", err.message);
    lock_release(lock);
    cr_expect_eq(access(path, F_OK), 0, "another's lock stays");
}

/* ---- races ---- */

enum { RACERS = 8, ROUNDS = 40 };

/* Takes the lock, says whether it could, and holds it until `end` is closed. */
static void race(int start, int result, int end)
{
    struct lock *lock = NULL;
    char byte;
    ssize_t n = read(start, &byte, 1); /* all at once: its writer closes it */
    n += write(result, lock_take(&lock, output, &report, NULL) ? "T" : "R", 1);
    n += read(end, &byte, 1);
    lock_release(lock);
    _exit(n != 1);
}

Test(lock, of_many_that_find_it_stale_one_takes_it)
{
    for (int round = 0; round < ROUNDS; round++) {
        int start[2], result[2], end[2], n_taken = 0;
        char byte;
        cr_assert(pipe(start) == 0 && pipe(result) == 0 && pipe(end) == 0);
        leave(&foreign, 1000);
        for (int i = 0; i < RACERS; i++) {
            if (fork() != 0) continue;
            close(start[1]);
            close(end[1]);
            race(start[0], result[1], end[0]);
        }
        close(start[1]);
        for (int i = 0; i < RACERS; i++) {
            cr_assert_eq(read(result[0], &byte, 1), 1);
            n_taken += byte == 'T';
        }
        cr_expect_eq(n_taken, 1, "round %d: %d", round, n_taken);
        close(end[1]);
        for (int i = 0; i < RACERS; i++)
            wait(NULL);
        close(start[0]), close(result[0]), close(result[1]), close(end[0]);
        cr_assert_eq(access(path, F_OK), -1);
    }
}
