/* app/app: what ships with the program is found beside it. The test's executable lies in a build
 * folder of the source tree, as the program does. */
#include <criterion/criterion.h>
#include <string.h>
#include <unistd.h>

#include "app/app.h"

Test(app, finds_what_ships_in_the_source_tree)
{
    static const char *const names[] = {"models/" SHIPPED_MODEL "/config.json",
                                        "profiles/rtx4090.json",
                                        "profiles/l40s.json",
                                        "profiles/h200.json",
                                        "shapes/llada-8b/config.json",
                                        "shapes/dream-7b/config.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[4096];
        cr_assert(app_find_data(names[i], path, sizeof path), "%s", names[i]);
        cr_assert_eq(access(path, R_OK), 0, "%s", path);
        cr_assert_str_eq(path + strlen(path) - strlen(names[i]), names[i]);
    }
}

Test(app, does_not_find_what_does_not_ship)
{
    char path[4096];
    cr_assert_not(app_find_data("profiles/abacus.json", path, sizeof path));
}

Test(app, a_path_that_does_not_fit_is_not_found)
{
    char path[8];
    cr_assert_not(app_find_data("profiles/h200.json", path, sizeof path));
}
