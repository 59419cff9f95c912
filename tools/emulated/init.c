/* The first and only process of the machines that tools/emulated boots: runs
 * the programs in /tests one by one and says how each ended. */
#include <dirent.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

static int run(const char *path)
{
    int status = -1;
    pid_t pid = fork();
    if (pid == 0) {
        execl(path, path, (char *)NULL);
        _exit(127);
    }
    waitpid(pid, &status, 0);
    return status;
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (mount("sysfs", "/sys", "sysfs", 0, NULL)) perror("init: /sys");
    DIR *dir = opendir("/tests");
    for (struct dirent *e; dir && (e = readdir(dir));) {
        char path[300];
        if (e->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "/tests/%s", e->d_name);
        printf("init: %s begins\n", e->d_name);
        printf("init: %s ended with %d\n", e->d_name, run(path));
    }
    printf("init: all ended\n");
    for (;;)
        pause();
}
