/* The first and only process of the machine that tools/amx/emulated boots:
 * runs the programs in /tests one by one and says how each ended. */
#include <dirent.h>
#include <stdio.h>
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
    DIR *dir = opendir("/tests");
    for (struct dirent *e; dir && (e = readdir(dir));) {
        char path[300];
        if (e->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "/tests/%s", e->d_name);
        printf("amx: %s begins\n", e->d_name);
        printf("amx: %s ended with %d\n", e->d_name, run(path));
    }
    printf("amx: all ended\n");
    for (;;)
        pause();
}
